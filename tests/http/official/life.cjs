// A workspace's life by Segment's own client: everything that the library has and Turnout serves. Prints what it met.
// Use: TURNOUT_URL=… TURNOUT_TOKEN=… node life.cjs CREATED_AUDIENCE CREATED_TRAIT
"use strict";
const api = require("@segment/public-api-sdk-typescript");

const [audienceId, traitId, sinkUrl] = process.argv.slice(2);
const apis = {};
for (const [name, of] of Object.entries(api)) {
  if (/Api$/.test(name)) {
    apis[name] = new of(process.env.TURNOUT_URL);
    apis[name].accessToken = process.env.TURNOUT_TOKEN;
  }
}
const { AudiencesApi, AuditTrailApi, ComputedTraitsApi, DeletionAndSuppressionApi } = apis;
const { DestinationsApi, SourcesApi, SpacesApi } = apis;

async function until(ask, done) {
  for (;;) {
    const found = await ask();
    if (done(found)) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// Go through all pages of a list, one item at a time.
async function all(ask, name) {
  const found = [];
  let pagination = { count: 1 };
  for (;;) {
    const data = await api.unwrap(ask(pagination));
    found.push(...data[name]);
    if (!data.pagination.next) return found;
    pagination = { count: 1, cursor: data.pagination.next };
  }
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return { status: error.statusCode, errors: error.body.errors };
  }
  throw new Error("was not refused");
}

async function main() {
  const met = {};
  const [space] = await all((page) => SpacesApi.listSpaces(page), "spaces");
  met.space = (await api.unwrap(SpacesApi.getSpace(space.id))).space;

  const slug = { slug: "shop", enabled: true, metadataId: "javascript", settings: { spaceId: space.id } };
  const { source } = await api.unwrap(SourcesApi.createSource(slug));
  met.source = (await api.unwrap(SourcesApi.getSource(source.id))).source;
  met.sources = (await all((page) => SourcesApi.listSources(page), "sources")).map((one) => one.id);
  met.paused = (await api.unwrap(SourcesApi.updateSource(source.id, { enabled: false }))).source.enabled;
  const keyed = (await api.unwrap(SourcesApi.createWriteKeyForSource(source.id))).source.writeKeys;
  met.writeKeys = keyed.length;
  met.keyRemoved = (await api.unwrap(SourcesApi.removeWriteKeyFromSource(source.id, keyed[keyed.length - 1]))).status;
  met.keysLeft = (await api.unwrap(SourcesApi.getSource(source.id))).source.writeKeys.length;

  const sink = { sourceId: source.id, metadataId: "webhook", name: "CRM", settings: { url: sinkUrl } };
  const { destination } = await api.unwrap(DestinationsApi.createDestination(sink));
  met.destination = (await api.unwrap(DestinationsApi.getDestination(destination.id))).destination;
  met.destinations = (await all((page) => DestinationsApi.listDestinations(page), "destinations")).map((one) => one.id);
  const renamed = { name: "Sales", settings: { url: sinkUrl } };
  met.renamed = (await api.unwrap(DestinationsApi.updateDestination(destination.id, renamed))).destination.name;

  const get = async () => (await api.unwrap(AudiencesApi.getAudience(space.id, audienceId))).audience;
  met.audiences = (await all((page) => AudiencesApi.listAudiences(space.id, page), "audiences")).map((one) => one.key);
  met.audience = await get();
  const off = await api.unwrap(AudiencesApi.updateAudienceForSpace(space.id, audienceId, { enabled: false }));
  met.disabled = off.audience.enabled;
  await api.unwrap(AudiencesApi.updateAudienceForSpace(space.id, audienceId, { enabled: true }));
  met.live = (await until(get, (one) => one.status === "Live")).status;

  const one = async () => (await api.unwrap(ComputedTraitsApi.getComputedTrait(space.id, traitId))).computedTrait;
  met.traits = (await all((page) => ComputedTraitsApi.listComputedTraits(space.id, page), "computedTraits")).length;
  met.trait = await one();
  await api.unwrap(ComputedTraitsApi.updateComputedTraitForSpace(space.id, traitId, { enabled: false }));
  met.traitStatus = (await one()).status;

  const erase = { regulationType: "SUPPRESS_WITH_DELETE", subjectType: "USER_ID", subjectIds: ["bob"] };
  const { regulateId } = await api.unwrap(DeletionAndSuppressionApi.createWorkspaceRegulation(erase));
  const regulation = async () => (await api.unwrap(DeletionAndSuppressionApi.getRegulation(regulateId))).regulation;
  met.regulation = await until(regulation, (found) => found.overallStatus === "FINISHED");
  met.regulations = (await all((page) => DeletionAndSuppressionApi.listWorkspaceRegulations(page), "regulations")).length;
  met.suppressed = (await all((page) => DeletionAndSuppressionApi.listSuppressions(page), "suppressed")).length;

  met.missing = await refusal(AudiencesApi.getAudience(space.id, "aud_99"));
  met.forged = await refusal(AudiencesApi.listAudiences(space.id, { count: 2, cursor: "bm8" }));

  await api.unwrap(ComputedTraitsApi.removeComputedTraitFromSpace(space.id, traitId));
  await api.unwrap(AudiencesApi.removeAudienceFromSpace(space.id, audienceId));
  met.left = (await all((page) => AudiencesApi.listAudiences(space.id, page), "audiences")).length;
  await api.unwrap(DestinationsApi.deleteDestination(destination.id));
  met.acts = (await all((page) => AuditTrailApi.listAuditEvents(page), "events")).map((act) => act.type);
  console.log(JSON.stringify(met));
}

main().catch((error) => {
  console.error(error instanceof Error ? error.stack : JSON.stringify(error));
  process.exit(1);
});
