from django.urls import include, path

from payments import api, views

app_name = "payments"
urlpatterns = [
    path("webhooks/<str:provider>", views.webhook, name="webhook"),
    path("payments/verify", api.verify, name="verify"),
    path("payments/orders", api.orders, name="orders"),
    path("payments/", include("payments.console.urls")),
]
