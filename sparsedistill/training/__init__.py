"""Training of students: data order, sparse Adam, the loop."""
