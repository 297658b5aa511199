from django.urls import path

from queues.console import actions, views

app_name = "queue"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("tasks/", views.tasks, name="tasks"),
    path("tasks/act/", actions.act, name="act"),
    path("tasks/<uuid:task_id>/", views.task, name="task"),
    path("tasks/<uuid:task_id>/output/", views.output, name="output"),
    path("stuck/", views.stuck, name="stuck"),
    path("workers/", views.workers, name="workers"),
    path("operations/", views.operations, name="operations"),
    path("operations/<uuid:operation_id>/", views.operation, name="operation"),
]
