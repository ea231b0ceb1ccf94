"""Base of all settings models: types of numbers, readers of files, explanations of errors."""
