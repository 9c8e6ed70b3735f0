// Called between BEGIN and COMMIT of the client's transaction: the order is placed and followed up, or neither.
export async function placeOrder(client, order) {
  await client.query('INSERT INTO orders (id, total) VALUES ($1, $2)', [order.id, order.total]);
  const { rows: [{ execution }] } = await client.query(
    'SELECT fw_workflow_start($1, $2, $3, $4) AS execution',
    [order.tenantId, 'order-followup', { orderId: order.id }, order.id]);
  return execution;
}
