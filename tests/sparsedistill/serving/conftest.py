import pytest
from helpers.small_service import small_service


@pytest.fixture
def service():
    return small_service()
