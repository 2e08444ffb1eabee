"""What is only possible with private names of Ray. No module elsewhere imports one.

They may change with any release of Ray. So setup.cfg bounds the version, and a test imports these modules with a version of
CHECKED_WITH. Before another version is added there, run the tests that start Ray with it (CONTRIBUTING.md).
"""

CHECKED_WITH = ("2.60",)
