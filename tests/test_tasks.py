"""One task and the list of them: create, read, change, complete, trash, restore."""

from tests.conftest import User


def test_created_task_has_every_field(alice: User) -> None:
    response = alice.post("/api/tasks", json={"title": "  Buy milk  "})
    assert response.status_code == 201
    task = response.json
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert response.headers["ETag"] == f'"{task["version"]}"'
    assert task["title"] == "Buy milk"
