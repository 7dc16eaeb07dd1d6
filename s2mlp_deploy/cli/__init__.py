"""The commands, one module each: they parse options, call the pipeline, print the result and exit.

Results go to stdout (with ``--json``, one JSON document and nothing else, of an error as well), progress and warnings
to stderr. Exit codes: 0 done; 1 parity or accuracy gate failed; 2 usage; 3 bad input; 4 a runtime or
device is missing; 130 interrupted (143 by SIGTERM, 129 by SIGHUP). Read export.py first.
"""
