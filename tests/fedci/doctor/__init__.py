"""What `fedci doctor` says of a machine and of roles' directories."""
