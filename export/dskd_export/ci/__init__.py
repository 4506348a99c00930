"""Results for continuous integration: JUnit and the job summary."""
