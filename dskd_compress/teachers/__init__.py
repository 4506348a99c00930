"""Everything about who teaches.

load           the teacher of a run, by its weights
classes        its classes against those of the data: mapped, or refused
probe          a linear classifier of the data's classes, fitted on its features
normalisation  how it gets its images, checked against the usual normalisations
cache          its outputs for training images, on disk
"""
