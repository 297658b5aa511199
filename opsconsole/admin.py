"""Accounts: those who may manage them cannot make themselves more than they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

if TYPE_CHECKING:
    BaseAdmin = UserAdmin[User]
else:
    BaseAdmin = UserAdmin

admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(BaseAdmin):
    """Only a superuser makes superusers, hands out single permissions, or touches a superuser."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        accounts = super().get_queryset(request)
        return accounts if request.user.is_superuser else accounts.filter(is_superuser=False)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        fields = tuple(super().get_readonly_fields(request, obj))
        return (
            fields if request.user.is_superuser else (*fields, "is_superuser", "user_permissions")
        )
