"""One file a stage: read the run folder, do the work, add its files, record what was read and written."""
