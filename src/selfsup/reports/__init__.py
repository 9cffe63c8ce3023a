"""Reports, contact sheets, maps and search results: everything that is made to be looked at."""
