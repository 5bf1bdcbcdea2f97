"""What keeps an installation going: backup, restore and upgrade of a home, and its metrics."""
