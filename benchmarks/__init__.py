"""How the service's time and space grow; what is measured, and the figures of the last run, are kept here.

growth       the run: two databases, one a hundred times the other; table, JSON, chart
writes       what each index costs on changes and gains on reads
operations   what a user does, as requests
statements   the statements that a request sends, and PostgreSQL's account of them
population   a database full of users and their tasks
server       a PostgreSQL to measure on
chart        results -> SVG
"""
