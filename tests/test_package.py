"""What `import orrery` offers."""

import importlib.metadata

import pytest

import orrery
from orrery.tasks.request import Request


def test_the_public_names_are_looked_up_where_they_live():
    assert orrery.Request is Request
    assert orrery.__version__ == importlib.metadata.version("orrery")


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; it has Envelope, Request, __version__, load, run"):
        _ = orrery.lode
