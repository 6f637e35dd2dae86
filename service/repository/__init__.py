"""The write door: one public function per use case, each one unit of work."""
