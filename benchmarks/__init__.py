"""How fast the service is, what it costs, how that grows; what is measured, and the last run's figures, are kept here.

__main__     all of it (make bench)
load         requests a second under load: mixed, and each kind alone
threads      what is answered with each number of threads and connections, the database near and far
scaling      what is answered by one, two and four processes, with limits counted by each or in Redis
settings     what DB_PREPARE and WEB_AFFINITY save
cost         memory, and time to start
stage        the service as it is shipped, behind nginx, on a database with users, under load
client       the load, a process of its own
delay        a database that is far, another one
growth       a run of its own: two databases, one a hundred times the other; table, JSON, chart
writes       what indexes cost on changes and gain on reads
operations   what a user does, as requests
statements   the statements that a request sends, and PostgreSQL's account of them
population   a database full of users and their tasks
server       a PostgreSQL to measure on
results      figures of several runs -> the table's
chart        results -> SVG
"""
