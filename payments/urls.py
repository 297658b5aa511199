from django.urls import path

from payments import api, views

app_name = "payments"
urlpatterns = [
    path("webhooks/<str:provider>", views.webhook, name="webhook"),
    path("payments/verify", api.verify, name="verify"),
    path("payments/orders", api.orders, name="orders"),
]
