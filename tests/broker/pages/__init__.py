"""The pages of the controller."""
