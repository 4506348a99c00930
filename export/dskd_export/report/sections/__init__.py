"""The chapters of the report, one file each: a `Run` in, a `Section` out."""
