"""Outputs of a teacher for augmented images, on disk: later epochs, methods and runs do not compute them again."""
