"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Bad input, said in one line: which file, key or row is wrong, and the remedy.

    Scripts turn it into that line and exit code 2; anything else is a bug and keeps its traceback.
    """
