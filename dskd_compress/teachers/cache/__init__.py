"""What a teacher said of an augmented image, kept on disk: no second epoch, method or run computes it again.

rows     an array on disk, row by row
key      what an output depends on: the name of its folder
place    the folder of caches, and whether another one fits
teacher  a teacher that looks there first
accuracy what it scores on the validation images
"""
