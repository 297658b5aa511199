-- The verdict on an event that contradicts nothing, and why: p_before and p_after are the order's row around it, p_old
-- what was known of its payment, p_moved whether that moved, p_beside whether another payment brought the order's money.
CREATE OR REPLACE FUNCTION judge_event(
    p_before transactions, p_after transactions, p_old text, p_moved boolean, p_beside boolean, p_accept boolean, p_new text,
    OUT verdict text, OUT reason text
) RETURNS record
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_same constant boolean := p_after.status = p_before.status;
    v_state constant text := replace(p_before.status, '_', ' ');
    v_new constant text := replace(p_new, '_', ' ');
BEGIN
    verdict := 'accepted';
    reason := '';
    IF p_beside AND v_same AND p_new = 'refunded' THEN
        reason := 'Another payment of the order went back in full: the order stays as it is.';
    ELSIF p_beside AND NOT money_has_come(p_new) OR NOT p_moved AND NOT p_accept
          AND payment_rank(p_new) < payment_rank(p_old) AND (p_new, p_old) <> ('paid', 'partially_refunded') THEN
        verdict := 'stale';
        reason := CASE WHEN p_beside OR p_old = p_before.status THEN format('The order is %s; %s came too late.', v_state, v_new)
                       ELSE format('The payment is %s; %s came too late.', replace(p_old, '_', ' '), v_new) END;
    ELSIF NOT p_moved AND NOT p_accept THEN
        reason := format('The order is %s already: nothing to do.', v_state);
    ELSIF v_same AND p_new <> p_after.status THEN
        reason := format('The order stays %s by another payment.', v_state);
    END IF;
END
$$;
