"""A running training in the terminal, read from its log alone: it may be looked at from any process.

follow.py   the lines of a log that grows
course.py   records -> where the training stands, and when it will end. Pure
load.py     how busy CPU and GPU are
watch.py    which training of a run, and looking at it until it ends
view.py     all of it as Rich shows it
"""
