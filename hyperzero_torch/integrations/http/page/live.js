// The page works without this. It puts changes in place while somebody watches; a form in which
// somebody writes stays as it is.
(function(){
"use strict";
var feed=document.body.dataset.feed;
if(!feed||!("EventSource" in window)){return;}
var source=new EventSource(feed);
var seen=Number(new URL(feed,location.href).searchParams.get("since"));
function open(part){
  return Array.prototype.map.call(part.querySelectorAll("details"),function(d){return d.open;});
}
function put(id,html){
  var part=document.getElementById(id);
  if(!part||part.contains(document.activeElement)&&document.activeElement.closest("input")){return;}
  var before=open(part);
  part.innerHTML=html;
  part.querySelectorAll("details").forEach(function(d,i){if(before[i]){d.open=true;}});
}
function writes(){
  var panel=document.getElementById("actions");
  return !panel||Array.prototype.some.call(panel.querySelectorAll("input:not([type=hidden])"),
    function(field){return field.value!==field.defaultValue||field===document.activeElement;});
}
function refreshActions(){
  if(writes()){return;}
  fetch(location.pathname.replace(/\/do\/[^/]*$/,"")+"/actions",{credentials:"same-origin"}).then(
    function(answer){return answer.ok&&!answer.redirected?answer.text():null;}
  ).then(function(html){
    if(html!==null&&!writes()){document.getElementById("actions").innerHTML=html;}
  }).catch(function(){});
}
// What is shown is old while the server or the journal is away; nobody may take it for the present.
function warn(text){document.getElementById("fault").textContent=text;}
source.addEventListener("fault",function(event){warn(JSON.parse(event.data).text);});
source.onerror=function(){warn("This page is out of date: the server does not answer.");};
source.onopen=function(){warn("");};
source.onmessage=function(event){
  var change=JSON.parse(event.data);
  if(change.version<seen){return;}
  seen=change.version;
  warn("");
  Object.keys(change.parts).forEach(function(id){put(id,change.parts[id]);});
  refreshActions();
};
})();
