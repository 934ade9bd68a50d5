"""Speed, measured as ratios of two things done in turns in one process."""
