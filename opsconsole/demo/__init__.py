"""`make demo`: database, web server and worker as one program, with something to look at."""
