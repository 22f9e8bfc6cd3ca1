"""Predictions without code: what each unit asks, as files; and answers in files, scored like a method."""
