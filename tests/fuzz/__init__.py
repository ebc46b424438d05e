"""Coverage-guided fuzzing of everything that reads what others wrote; `make fuzz`, not part of the tests."""
