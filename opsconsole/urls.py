from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from opsconsole.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("admin/", admin.site.urls),
    path("", include("payments.urls")),
    path("", include("queues.console.urls")),
]
if settings.DEMO:
    from opsconsole.demo.views import inbox

    urlpatterns.append(path("demo/inbox", inbox))
