"""Students: small interface, one file each."""

from sparsedistill.students.base import Student
from sparsedistill.students.dan import DAN, DANShape
from sparsedistill.students.training import StudentTraining

__all__ = ["DAN", "DANShape", "Student", "StudentTraining"]
