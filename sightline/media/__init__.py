"""Bytes become arrays: files are known by their bytes, and decoded in a child process when they are not trusted."""
