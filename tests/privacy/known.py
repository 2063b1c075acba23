"""A secret that is none, so that what it draws is the same in every run of the tests."""

from privacy.secret import Secret

KEY = bytes(range(32))
SECRET = Secret(KEY)
