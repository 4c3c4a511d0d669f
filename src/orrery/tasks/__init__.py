"""What can be asked: tasks, requests, embodiments, contracts and prompts, as data."""
