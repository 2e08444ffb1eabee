"""Reading the run store into data frames."""
