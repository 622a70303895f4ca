"""The console: pages to look at audiences, profiles and destinations with, and to make audiences with, at /console."""
