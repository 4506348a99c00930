"""A running training in the terminal, read from its log alone, so that any process can follow it.

follow  new records of a log
course  progress, time left and curves of a training, from its records; pure
load    load of CPU and GPU
watch   the training of a run, followed until it ends
view    all of it, drawn by Rich
"""
