"""Students: small interface, one file each."""

from sparsedistill.students.base import Student
from sparsedistill.students.dan import DAN, DANRegularisation, DANShape

__all__ = ["DAN", "DANRegularisation", "DANShape", "Student"]
