"""Stand-ins for what a student's process holds: used here like the originals, which stay where they are."""

from autograder import check


class Object:
    """A stand-in for an object of the student's: its attributes and methods are asked for over there."""

    def __init__(self, process, place: int, name: str):
        vars(self).update(_process=process, _place=place, __name__=name or type(self).__name__)

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._process.get(self, name)

    def __setattr__(self, name, value):
        self._process.set(self, name, value)

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return f"<the student's {type(self).__name__}>"

    def __len__(self):
        return self._process.special(self, "__len__")

    def __getitem__(self, key):
        return self._process.special(self, "__getitem__", key)

    def __iter__(self):
        found = self._process.special(self, "__iter__")
        return found if isinstance(found, Object) else iter(found)

    def __next__(self):
        try:
            return self._process.special(self, "__next__")
        except check.StudentError as error:
            if error.kind == "StopIteration":
                raise StopIteration from None
            raise


class Callable_(Object):
    @property
    def _cells_(self):
        """The student's cells that have run, by name: as they were handed in, not as they say they are."""
        return self._process.cells

    def _announce_(self, calls):
        return self._process.announce(self, calls)

    @property
    def _kept_(self):
        return self._process.kept()

    def __call__(self, *args, **kwargs):
        return self._process.call(self, args, kwargs)
