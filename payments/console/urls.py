"""The console's pages of payments, below /payments/."""

from django.urls import path

from payments.console import books, views
from payments.console.acts import act

urlpatterns = [
    path("", views.payments, name="list"),
    path("<uuid:transaction_id>/", views.payment, name="transaction"),
    path("<uuid:id>/fulfil/", act, {"name": "fulfil"}, name="fulfil"),
    path("deliveries/", views.deliveries, name="deliveries"),
    path("deliveries/<uuid:delivery_id>/", views.delivery, name="delivery"),
    path("deliveries/<uuid:id>/accept/", act, {"name": "accept"}, name="accept"),
    path("deliveries/<uuid:id>/set-aside/", act, {"name": "set_aside"}, name="set_aside"),
    path("differences/", books.differences, name="differences"),
    path("reconciliations/", books.reconciliations, name="reconciliations"),
    path("reconciliations/<uuid:reconciliation_id>/", books.reconciliation, name="reconciliation"),
    path("reconciliations/rows/<uuid:id>/record/", act, {"name": "record"}, name="record"),
    path(
        "reconciliations/rows/<uuid:id>/set-aside/",
        act,
        {"name": "set_row_aside"},
        name="set_row_aside",
    ),
]
