"""Environments of other libraries, ``LIBRARY:NAME``, as protocols, graders and problems of ours; and ours as theirs."""
