"""One file per task; the file's name is the task's public name. There is no list of them: files are found by name."""
