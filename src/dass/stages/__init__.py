"""One module per rule of the workflow: read inputs, call the library, write whole files.

A rule's results depend on its stage module and on what that imports, so each imports what its own
stage needs and nothing else. Anyone may call a stage without the workflow.
"""
