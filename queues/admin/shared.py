"""What the admin pages of the queue share: tables of millions of rows, read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

DEEPEST_ROW = 5_000

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
    ModelAdmin = admin.ModelAdmin[Any]
else:
    AnyPaginator, ModelAdmin = Paginator, admin.ModelAdmin


class CappedPaginator(AnyPaginator):
    """Counts and pages no deeper than DEEPEST_ROW, whatever the table holds.

    Pages beyond are reached by filtering, or in the console, whose list has keyset pages.
    """

    @property
    def count(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        if not hasattr(self, "_capped"):
            self._capped = rows.order_by().values("pk")[:DEEPEST_ROW].count()
        return self._capped


class LargeTableAdmin(ModelAdmin):
    """For tables that may hold millions of rows: one bounded count, no deep OFFSET, no joins."""

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 200
    list_select_related = False
    ordering: ClassVar[tuple[str, ...]] = ("-pk",)


class ReadOnlyAdmin(LargeTableAdmin):
    """A record of what happened: looked at, never written by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
