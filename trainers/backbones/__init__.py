"""One file per backbone family; a backbone's public name is ``file/flavor``. Files are found by name."""
