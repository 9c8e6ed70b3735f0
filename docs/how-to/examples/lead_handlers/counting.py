from typing import Any

from events_worker.handlers import EventJob, HandlerContext, on


@on("lead.created")
async def count_lead(event: EventJob, context: HandlerContext) -> dict[str, Any]:
    """Count the leads of each company: every lead once, whatever is killed meanwhile."""
    company = event.payload.get("company") or "unknown"
    async with context.transaction() as database:
        leads = await database.fetchval(
            "INSERT INTO company_leads AS known (company, leads) VALUES ($1, 1)"
            " ON CONFLICT (company) DO UPDATE SET leads = known.leads + 1 RETURNING leads",
            company,
        )
    context.log.info("lead_counted", leads=leads)
    return {"leads": leads}
