"""The console command `knorm`: one module for each of its commands."""
