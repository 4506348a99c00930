"""Outputs of a teacher for augmented images, on disk: later epochs, methods and runs do not compute them again.

plan      the cache of a recipe
disk      its size, and opening it
key       what an output depends on: the name of its folder
rows      an array on disk, row by row
teacher   a teacher that reads the cache first
accuracy  its accuracy on the validation images
"""
