"""The report: one HTML page that needs no other file, of a comparison or of several networks combined."""
