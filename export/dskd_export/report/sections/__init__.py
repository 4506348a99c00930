"""The chapters of the report, one file each: `section_from_run`."""
